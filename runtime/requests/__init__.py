"""What a call may say, checked and completed at the edge."""
