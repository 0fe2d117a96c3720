//! pseries guests: boot, hcalls, RTAS, device tree.
