//! Relations, their privileges, and the databases they are in.

use pgrx::pg_sys::{self, Oid};

/// Whether the current user may SELECT from the relation, or from any of its columns.
pub fn may_select(relation: Oid) -> bool {
    // SAFETY: look-ups in the system caches; the relation may have been dropped since, which the `_ext` form
    // reports through `missing` instead of an ERROR.
    unsafe {
        let user = pg_sys::GetUserId();
        let mode = pg_sys::ACL_SELECT as pg_sys::AclMode;
        let mut missing = false;
        pg_sys::pg_class_aclcheck_ext(relation, user, mode, &mut missing) == pg_sys::AclResult::ACLCHECK_OK
            || (!missing
                && pg_sys::pg_attribute_aclcheck_all(relation, user, mode, pg_sys::AclMaskHow::ACLMASK_ANY)
                    == pg_sys::AclResult::ACLCHECK_OK)
    }
}

/// Schema-qualified, quoted name of a relation; None when it does not exist (any more).
pub fn qualified_name(relation: Oid) -> Option<String> {
    // SAFETY: cache look-ups that give null or a palloc'd C string; the strings are copied, then freed.
    unsafe {
        let table = pg_sys::get_rel_name(relation);
        if table.is_null() {
            return None;
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if schema.is_null() {
            return None;
        }
        let copied = |name: *mut std::ffi::c_char| std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned();
        let name = pgrx::spi::quote_qualified_identifier(copied(schema), copied(table));
        pg_sys::pfree(schema.cast());
        pg_sys::pfree(table.cast());
        Some(name)
    }
}

/// Whether a relation is a partition of another one.
pub fn is_partition(relation: Oid) -> bool {
    // SAFETY: plain catalogue look-up; false for what does not exist.
    unsafe { pg_sys::get_rel_relispartition(relation) }
}

/// Name of the type of a column, without its schema; None where there is no such column (any more).
pub fn column_type(relation: Oid, column: &str) -> Option<String> {
    let column = std::ffi::CString::new(column).ok()?;
    // SAFETY: cache look-ups; a type's name comes as a palloc'd C string, which is copied and freed.
    unsafe {
        let number = pg_sys::get_attnum(relation, column.as_ptr());
        if i32::from(number) <= 0 {
            return None;
        }
        let kind = pg_sys::get_atttype(relation, number);
        let name = pg_sys::format_type_extended(kind, -1, pg_sys::FORMAT_TYPE_ALLOW_INVALID as u16);
        if name.is_null() {
            return None;
        }
        let copied = std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned();
        pg_sys::pfree(name.cast());
        Some(copied.rsplit('.').next().unwrap_or_default().trim_matches('"').to_owned())
    }
}

/// Schemas of the current `search_path`, in order, without the implicit ones.
pub fn search_path() -> Vec<String> {
    let mut schemas = Vec::new();
    // SAFETY: fetch_search_path gives a palloc'd list of oids; names are copied before anything is freed.
    unsafe {
        let path = pg_sys::fetch_search_path(false);
        if !path.is_null() {
            for index in 0..(*path).length {
                let name = pg_sys::get_namespace_name((*(*path).elements.add(index as usize)).oid_value);
                if !name.is_null() {
                    schemas.push(std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned());
                    pg_sys::pfree(name.cast());
                }
            }
            pg_sys::list_free(path);
        }
    }
    schemas
}

/// Whether schema `rec` has this table: the extension is installed, and new enough.
pub fn is_in_catalogue(table: &str) -> bool {
    let Ok(table) = std::ffi::CString::new(table) else { return false };
    // SAFETY: look-ups in the system caches; both strings outlive the calls.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"rec".as_ptr(), true);
        schema != Oid::INVALID && pg_sys::get_relname_relid(table.as_ptr(), schema) != Oid::INVALID
    }
}

/// The databases of the server that one can be connected to, but for templates.
pub fn databases() -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: the pattern of autovacuum's get_database_list: pg_database is shared, so it can be read without a
    // database; a tuple is valid until the next one is fetched, and begins with the fixed columns.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(table, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            let invalid = (*database).datconnlimit == pg_sys::DATCONNLIMIT_INVALID_DB;
            if (*database).datallowconn && !(*database).datistemplate && !invalid {
                found.push((*database).oid);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(table, lock);
    }
    found
}
