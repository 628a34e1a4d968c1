"""Care for the stores: what lies in the ledger and under cache/, who uses it, whether it is whole.

Behind `agiqa cache`; also rows on their way from and to other machines, people and programs. How a
store lies on the disk is the feature store's knowledge; here it is only asked.
"""
