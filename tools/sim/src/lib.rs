//! Virtual time for vcores: the second driver of `vcore::Machine`.
//!
//! A discrete-event simulation of many vcores on a host with plenty of CPUs. It applies the very
//! transitions that real threads apply, and charges what a wake-up and a sleep cost to a table
//! ([`engine::Costs`]) instead of to a machine. It answers what a policy does to latency and CPU
//! time under a workload, for 100,000 vcores as well as for one.
//!
//! | module | owns |
//! |---|---|
//! | [`queue`] | the future: events in the order of their time |
//! | [`engine`] | the vcores, and what each event does to them |
//! | [`workload`] | who is woken when: five kinds of load, and replay of a recorded one |
//! | [`measure`] | wake-up latencies and burned CPU time |
//! | [`oracle`] | idle periods that the kernel had, by this project's arithmetic |
//! | [`plot`] | the picture of one against the other |

#![forbid(unsafe_code)]

pub mod engine;
pub mod measure;
pub mod oracle;
pub mod plot;
pub mod queue;
pub mod workload;
