"""What a strategy would have bought on data that is labeled already: `winnow simulate`."""
