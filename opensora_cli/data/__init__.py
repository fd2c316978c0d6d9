"""Data: tables of clips, video files, buckets, batches and the loader."""
