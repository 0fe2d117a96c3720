//! End-to-end scenarios, bare-metal payloads, the layering test.

#![forbid(unsafe_code)]
