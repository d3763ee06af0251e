"""The local cloud: the shipped template on moto, with what moto lacks filled in, under one virtual clock."""
