//! All integration tests are one binary, so that linking happens once.

mod oracle;
