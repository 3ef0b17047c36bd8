//! The API as a black box: over HTTP, against a real PostgreSQL. What every route must do is asked of every route of
//! the OpenAPI document, so that a new one cannot be forgotten.

mod access;
mod by_hand;
mod children;
mod edge;
mod fan_out;
mod health;
mod idempotency;
mod incidents;
mod input;
mod jobs;
mod later;
mod metrics;
mod operators;
mod pages;
mod pauses;
mod promises;
mod python_worker;
mod queues;
mod rates;
mod reports;
mod robust;
mod rules;
mod schedules;
mod search;
mod sequence;
mod serial_keys;
mod serving;
mod signals;
mod spelling;
mod start_requests;
mod starts;
mod tasks;
mod tenancy;
mod versions;
mod wire;
