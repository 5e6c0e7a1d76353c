-- Changes in tables of the user's own.

create table jobnimbus_mcp.inbox (
    id         bigint generated always as identity primary key,
    token      uuid not null default gen_random_uuid(),
    instance   text not null,
    entity     text not null,
    record_id  text not null,
    operation  text not null,
    changed_at timestamptz not null default clock_timestamp()
);
create index inbox_by_record on jobnimbus_mcp.inbox (instance, entity, record_id, id);

-- create trigger ... execute function jobnimbus_mcp.emit_change('<instance>', '<entity>', '<column with the jnid>')
--
-- With its owner's rights, so that whoever writes to the table needs none here; so nothing of theirs may run in it: the
-- column is read by its type's own output, never by a cast, and the other columns are not looked at. A row without an id
-- says nothing; a change that cannot be noted is a warning, because it must never fail the write it is about. The row is
-- given back as it is, for a trigger that was attached BEFORE and would undo the write otherwise.
create function jobnimbus_mcp.emit_change() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    told text;
begin
    begin
        if TG_OP = 'DELETE' then
            execute format('select format(''%%s'', ($1).%I)', TG_ARGV[2]) into told using old;
        else
            execute format('select format(''%%s'', ($1).%I)', TG_ARGV[2]) into told using new;
        end if;
        if told <> '' then
            insert into jobnimbus_mcp.inbox (instance, entity, record_id, operation)
                values (TG_ARGV[0], TG_ARGV[1], told, lower(TG_OP));
            perform pg_notify('jobnimbus_mcp', 'inbox');
        end if;
    exception when others then
        raise warning 'jobnimbus_mcp: the change of a row in %.% was not noted (%)',
            TG_TABLE_SCHEMA, TG_TABLE_NAME, sqlstate;
    end;
    if TG_OP = 'DELETE' then
        return old;
    end if;
    return new;
end
$$;
