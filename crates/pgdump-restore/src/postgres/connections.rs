//! How many connections a server has, and how many of them one job may take.

use super::errors::map_pg_error;
use super::session::Session;
use crate::error::DatabaseError;

/// Connections that a job leaves to others, at least. One in ten if that is more.
const MIN_SPARE: usize = 3;

/// Reserved connections do not count. Of the sessions of other roles, some roles see neither type nor state.
const CONNECTIONS: &str = "SELECT current_setting('max_connections')::int
      - current_setting('superuser_reserved_connections')::int
      - coalesce(current_setting('reserved_connections', true)::int, 0),
    (SELECT count(*)::int FROM pg_stat_activity
      WHERE usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend')";

/// The connections of a server at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConnections {
    /// Connections that roles without special rights may have together.
    pub allowed: usize,
    /// Connections that exist, of any role.
    pub in_use: usize,
}

impl ServerConnections {
    /// Connections that one job leaves free for others.
    pub fn spare(self) -> usize {
        (self.allowed / 10).max(MIN_SPARE)
    }

    /// The number of connections to open where `wanted` are wanted: what is free without the spare ones, at least 1.
    pub fn bound(self, wanted: usize) -> usize {
        let available = self.allowed.saturating_sub(self.in_use + self.spare());
        wanted.min(available.max(1))
    }
}

impl Session {
    /// Counts the server's connections, this one included.
    ///
    /// # Errors
    /// `target_unavailable`, or the server's error.
    pub async fn connections(&self) -> Result<ServerConnections, DatabaseError> {
        let row = self.client().query_one(CONNECTIONS, &[]).await;
        let row = row.map_err(|e| map_pg_error(&e, "counting the server's connections"))?;
        let count = |i| usize::try_from(row.get::<_, i32>(i)).unwrap_or_default();
        Ok(ServerConnections {
            allowed: count(0),
            in_use: count(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_leaves_connections_to_others() {
        for (allowed, in_use, wanted, opened) in [
            (97, 1, 8, 8),
            (97, 1, 120, 87),
            (97, 80, 120, 8),
            (17, 1, 120, 13),
            // The last ones are left to others, but a restore is never refused for that.
            (17, 13, 120, 1),
            (17, 16, 120, 1),
            (17, 20, 4, 1),
            (0, 0, 1, 1),
        ] {
            let server = ServerConnections { allowed, in_use };
            assert_eq!(server.bound(wanted), opened, "{server:?} {wanted}");
        }
    }
}
