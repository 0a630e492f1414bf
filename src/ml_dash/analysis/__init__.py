"""After the recording: tables, slices, alignment, search, checks and plots, as functions over Arrow tables."""
