"""Ray's nodes as small as they go; a worker is Ray's own program, a fork of kit/imported.py.

ray_nodes.py DEFAULT_WORKER ARGUMENTS   as a node starts it; `$WORDS` are those of `open_python`
"""

import json
import os
import sys

SMALL = {  # what a node takes, and what it starts
    "num_cpus": 1,
    "object_store_memory": 80 << 20,
    "include_log_monitor": False,
    "setup_worker_path": __file__,
}
WORDS = "AGIQA_TEST_PYTHON"
QUICK = {  # Ray's own settings: nothing is started before it is asked for, the dead are soon missed
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
}
FOR_SETUP = ("--language=", "--serialized-runtime-env-context=")  # as Ray's setup_worker.py has it

if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if not word.startswith(FOR_SETUP)]
    words = json.loads(os.environ[WORDS])
    os.execv(words[0], [*words, *given])  # without Ray, which reads its environment once
