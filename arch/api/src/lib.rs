//! What the run loop, an architecture and the hypervisor say to each other.
