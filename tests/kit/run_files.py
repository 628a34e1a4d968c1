"""What `fit` and `evaluate` leave in a run, in small."""

from typing import Any

STORES = {
    "semantic": {"extractor": "nano", "names": ["a"], "fingerprints": [{}]},
    "visual": {"extractor": "nano-vision", "names": ["b"], "fingerprints": [{}]},
}


def metrics_of(srcc: float = 0.8848, **changed: Any) -> dict[str, Any]:
    """metrics.json in small: the mixture and a ridge."""
    splits = changed.get("splits", 10)

    def figures(value: float) -> dict[str, Any]:
        sd = None if splits == 1 else 0.0093
        return {"median": value, "mean": value, "sd": sd, "low": value - 0.02, "high": value + 0.02}

    def model(value: float) -> dict[str, Any]:
        names = {"srcc": value, "plcc_logistic": value + 0.04, "plcc": value + 0.039}
        names |= {"krcc": 0.7, "rmse_raw": 1.5, "mae": 1.2, "rmse": 1.25}
        return {name: figures(each) for name, each in names.items()}

    about = {"dataset": "agiqa-3k", "target": "quality", "protocol": "grouped", "splits": splits}
    models = {"ridge_visual": model(srcc - 0.01), "moe": model(srcc)}
    return about | {"synthetic": False, "models": models} | changed


def provenance_of(**changed: Any) -> dict[str, Any]:
    """provenance.json in small, of a run of one data set."""
    about = {
        "dataset": "tiny",
        "target": "quality",
        "protocol": "grouped",
        "synthetic": False,
        "seeds": [0, 1],
        "mos": {"low": 1.0, "high": 5.0},
        "images": 100,
        "experts": ["visual", "semantic_content", "coherence"],
        "stores": STORES,
    }
    return about | changed
