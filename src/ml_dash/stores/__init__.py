"""The stores: memory, local files, HTTP, MongoDB. All keep the contract in `ml_dash.store`."""
