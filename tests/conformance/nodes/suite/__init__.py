"""What upstream's conformance tests ask of a cluster, asked by equivalent steps without their images."""
