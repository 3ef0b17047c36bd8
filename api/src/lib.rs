//! Backstitch over HTTP.
