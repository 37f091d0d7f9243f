"""Commands beside the study: export, doctor, checks of data, diagnosis, benches."""
