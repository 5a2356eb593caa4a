//! SPDY/3.1 framing, as kubectl still tunnels it for port-forward.
