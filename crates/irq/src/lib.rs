//! Interrupt sources and lines.
