"""The light regressor: projections, kernel ridges and a mixture of experts on cached vectors."""
