//! What a managed service adds to the databases of its users, as data.

use crate::policy::{Profile, matches};

/// Names, or patterns with `*` and `?`.
pub(crate) type Names = &'static [&'static str];

/// A managed service. `docs/managed-services.md` has the sources of these facts.
pub(crate) struct Service {
    pub profile: Profile,
    /// Its name for people.
    pub title: &'static str,
    /// Roles of the platform. They recognize a dump, and a server.
    pub roles: Names,
    /// Roles that the service has, and others, too.
    pub common_roles: Names,
    /// Whether a name is one that the service makes up for a role.
    pub is_generated_role: fn(&str) -> bool,
    /// Extensions that only the service has. They recognize a dump. No patterns.
    pub extensions: Names,
    /// Extensions that the service installs by itself, and that others may have. No patterns.
    pub common_extensions: Names,
    /// Schemas of the platform's own machinery, with nothing of the user in them.
    pub schemas: Names,
    /// Schemas that recognize a dump, and are restored: they hold data of the user, or extensions.
    pub kept_schemas: Names,
    pub event_triggers: Names,
    pub publications: Names,
    /// The role that stands for a superuser.
    pub administrator: &'static str,
    /// Kinds that elsewhere only a superuser may create, and that members of `administrator` may create here.
    pub administrators_create: Names,
}

impl Service {
    /// Whether a role belongs to the platform.
    pub(crate) fn has_role(&self, role: &str) -> bool {
        is_in(self.roles, role) || is_in(self.common_roles, role) || (self.is_generated_role)(role)
    }
}

/// Whether one of the patterns means this name.
pub(crate) fn is_in(names: Names, name: &str) -> bool {
    names.iter().any(|pattern| matches(pattern, name))
}

/// For services that make up no names.
pub(super) fn never(_: &str) -> bool {
    false
}
