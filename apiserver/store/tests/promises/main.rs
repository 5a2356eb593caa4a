//! What the store promises, tested from outside.

mod backup;
mod clustered;
mod common;
mod damage;
mod durability;
mod etcd;
mod full_disk;
mod kill;
mod model;
mod mounts;
mod power_cut;
mod semantics;
