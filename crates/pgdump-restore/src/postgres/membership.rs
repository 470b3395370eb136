//! Memberships in roles.

/// From this version on, a membership has options: without INHERIT, a member lacks the role's privileges, and without
/// SET it cannot make the role an owner.
pub const MEMBERSHIP_OPTIONS: u32 = 160_000;

/// The options of a `GRANT` of a role after which a member has its privileges and can make it an owner.
pub fn membership_options(version: u32) -> &'static str {
    if version < MEMBERSHIP_OPTIONS {
        ""
    } else {
        " WITH INHERIT TRUE, SET TRUE"
    }
}
