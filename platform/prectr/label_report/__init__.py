"""What the teacher said, for people: one page about an artifact of `label`. Reads artifacts; writes only the page."""
