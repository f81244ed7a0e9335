"""What is compared before a graph or an engine is accepted, and on what inputs."""
