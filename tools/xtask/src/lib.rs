//! Project tasks as a library, for the end-to-end tests and the benches: the lab and the cross build.

pub mod bench;
pub mod cross;
pub mod demo;
pub mod fuzz;
pub mod idle;
pub mod lab;
pub mod paths;
pub mod payloads;
pub mod test;
