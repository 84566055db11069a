//! keepalived on a host of the lab, as the measure for the benchmark.
