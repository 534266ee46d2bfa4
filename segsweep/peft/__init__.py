"""Parameter-efficient fine-tuning: weight edits and filled seams."""
