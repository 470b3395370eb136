//! Tests against real PostgreSQL: equality with `pg_restore`, staging and swap, damaged archives, verification.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/synthetic.rs"]
mod synthetic;

mod access;
mod causes;
mod damage;
mod faults;
mod fill;
mod finish;
mod encodings;
mod extensions;
mod formats;
mod in_place;
mod inputs;
mod redirected;
mod rehearsals;
mod round_trip;
mod servers;
mod sets;
mod swap;
mod tls;
mod token_login;
mod verify;
mod isolation;
mod pieces;
mod preflight;
mod promote;
mod refusals;
mod connection;
mod corpus;
mod cuts;
mod hostile;
mod journal;
mod limits;
mod managed;
mod mistakes;
mod tuples;
mod text;
mod order;
mod parts;
mod choosing;
mod masking;
mod masked_joins;
mod masked_values;
mod mask_commands;
mod leaks;
mod resume;
mod tampering;
mod server_crash;
mod failover;
