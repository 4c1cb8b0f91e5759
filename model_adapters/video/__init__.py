"""From a video file to sampled frames to pixel values."""
