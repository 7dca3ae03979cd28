//! Whose rights a piece of work runs with.

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

/// Restores the former user when dropped. An aborted transaction restores it by itself.
struct Switched {
    user: Oid,
    context: i32,
}

impl Drop for Switched {
    fn drop(&mut self) {
        // SAFETY: sets two globals; allocates nothing and raises nothing, so it may run while a panic unwinds.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

fn run_as<T>(role: Oid, flags: u32, work: impl FnOnce() -> T) -> T {
    let mut former = Switched { user: Oid::INVALID, context: 0 };
    // SAFETY: the pattern of SECURITY DEFINER (fmgr_security_definer): remember, set, restore.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut former.user, &mut former.context);
        pg_sys::SetUserIdAndSecContext(role, former.context | flags as i32);
    }
    let result = work();
    drop(former);
    result
}

/// Runs `work` with a search path that no user can put an operator or a type into.
fn with_own_path<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the pattern of a function's SET clause (fmgr_security_definer). Should `work` raise, the end of the
    // (sub)transaction undoes the level, as it does for every function with a SET clause.
    let level = unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            c"pg_catalog, pg_temp".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        level
    };
    let result = work();
    // SAFETY: the level opened above is the innermost one again.
    unsafe { pg_sys::AtEOXact_GUC(false, level) };
    result
}

/// Runs `work` with the rights that the catalogue's tables need, and with a search path that no user can put an
/// operator into. Only for statements written in this crate on tables of the catalogue, which nobody else can change; the
/// caller's right to the effect is checked before.
pub fn as_catalog<T>(work: impl FnOnce() -> T) -> T {
    with_own_path(|| run_as(pg_sys::BOOTSTRAP_SUPERUSERID.into(), pg_sys::SECURITY_LOCAL_USERID_CHANGE, work))
}

/// As [`as_owner`] in the session of somebody who need not be the owner: with a search path that they cannot put an operator
/// or a type into, so that nothing of theirs runs with the owner's rights.
pub fn as_owner_for<T>(owner: Oid, work: impl FnOnce() -> T) -> T {
    with_own_path(|| as_owner(owner, work))
}

/// Runs `work` as the owner of a recommender: it reads what the owner reads. Nothing in it may change the
/// session (SECURITY_RESTRICTED_OPERATION), as for an index expression. In processes of our own, whose search path is
/// nobody's; sessions use [`as_owner_for`].
pub fn as_owner<T>(owner: Oid, work: impl FnOnce() -> T) -> T {
    run_as(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION, work)
}

/// The current user.
pub fn current() -> Oid {
    // SAFETY: reads a global.
    unsafe { pg_sys::GetUserId() }
}

/// The current user's name.
pub fn current_name() -> String {
    // SAFETY: GetUserNameFromId with noerr = false gives a palloc'd C string or raises an ERROR.
    unsafe { std::ffi::CStr::from_ptr(pg_sys::GetUserNameFromId(current(), false)).to_string_lossy().into_owned() }
}

/// A role by name.
pub fn find(name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: the string outlives the call; missing_ok = true gives InvalidOid for an unknown role.
    let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (oid != Oid::INVALID).then_some(oid)
}

/// Whether the current user has all rights of `role` (is it, is a member of it, or is a superuser).
pub fn may_act_as(role: Oid) -> bool {
    // SAFETY: plain catalogue look-up.
    unsafe { pg_sys::has_privs_of_role(current(), role) }
}

/// Whether the current user is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: plain catalogue look-up.
    unsafe { pg_sys::superuser() }
}

/// Whether the current user has the rights of a predefined role (superusers do).
pub fn has_predefined(name: &str) -> bool {
    find(name).is_some_and(may_act_as)
}
