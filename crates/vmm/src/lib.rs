//! Threads, memory, lifecycle and the vCPU run loop, generic over Arch.
