"""The preset `tuned`: the backbone's last blocks, trained from cached tokens, beside `light`."""
