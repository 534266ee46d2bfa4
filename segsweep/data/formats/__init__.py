"""Files of annotations, pictures and masks as others write them."""
