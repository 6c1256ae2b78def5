//! A certificate that may be served: it exists only if chain, key, names and dates agree.
