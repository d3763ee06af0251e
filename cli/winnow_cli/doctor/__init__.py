"""Whether active learning fits a set of records and a budget: `winnow doctor`."""
