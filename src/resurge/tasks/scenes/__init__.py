"""What detection and segmentation have in common: images of any shape, scored at their own size."""
