//! A scheduler for virtual cores: H_CEDE napping, shared wait queues, halt polling.
