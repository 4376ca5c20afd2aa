//! A simulated Kubernetes cluster.
