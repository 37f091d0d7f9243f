"""The papermill batch: which notebooks, in which processes; choosing steps and rates."""
