-- What is kept: events, what each consumer made of them, every try. The queues themselves are pgmq's.

create table jobnimbus_mcp.meta (
    only_row boolean primary key default true check (only_row),
    token    uuid not null default gen_random_uuid()
);
insert into jobnimbus_mcp.meta default values;

create table jobnimbus_mcp.consumers (
    name       text primary key,
    queue      text not null unique,
    retired_at timestamptz
);

-- "C": ids are compared byte by byte, so that they sort by time whatever the database's language is.
create table jobnimbus_mcp.events (
    event_id    text collate "C" primary key,
    instance    text not null,
    name        text not null,
    entity      text not null,
    record_id   text not null,
    source      text not null,
    received_at timestamptz not null,
    enqueued_at timestamptz not null default clock_timestamp(),
    envelope    json not null,              -- not jsonb, which refuses \u0000
    body        text not null,
    unfinished  integer not null,           -- consumers that are neither done nor have given it up
    dead        integer not null default 0, -- consumers that have given it up
    finished_at timestamptz,
    rejected    text                        -- why it could not be understood; such an event has no consumers
);
create index events_by_record on jobnimbus_mcp.events (record_id, event_id);
create index events_by_entity on jobnimbus_mcp.events (entity, event_id);
create index events_unfinished on jobnimbus_mcp.events (event_id) where unfinished > 0;
create index events_dead on jobnimbus_mcp.events (event_id) where dead > 0;
create index events_finished on jobnimbus_mcp.events (finished_at) where finished_at is not null;

create table jobnimbus_mcp.deliveries (
    event_id text collate "C" not null references jobnimbus_mcp.events on delete cascade,
    consumer text not null,
    instance text not null,
    state    text not null default 'pending' check (state in ('pending', 'done', 'dead')),
    due_at   timestamptz not null,
    tries    integer not null default 0,    -- in all
    attempts integer not null default 0,    -- since it was last replayed
    done_at  timestamptz,
    reason   text not null default '',
    primary key (event_id, consumer)
);
create index deliveries_pending on jobnimbus_mcp.deliveries (instance, consumer, due_at) where state = 'pending';
create index deliveries_dead on jobnimbus_mcp.deliveries (instance, consumer) where state = 'dead';

create table jobnimbus_mcp.attempts (
    id          bigint generated always as identity primary key,
    event_id    text collate "C" not null references jobnimbus_mcp.events on delete cascade,
    consumer    text not null,
    instance    text not null,
    due_at      timestamptz not null,
    at          timestamptz not null,
    request_id  text not null,
    duration_ms double precision not null,
    status_code integer,
    error       text not null,
    response    text not null
);
create index attempts_by_event on jobnimbus_mcp.attempts (event_id, consumer, id);
create index attempts_by_time on jobnimbus_mcp.attempts (instance, at);

create view jobnimbus_mcp.event_trace as
select e.event_id as message,
       e.enqueued_at,
       e.envelope as payload,
       d.done_at as processed_at,
       coalesce(d.tries, 0) as attempts,
       a.status_code,
       coalesce(nullif(a.error, ''), nullif(d.reason, ''), e.rejected) as error,
       a.response,
       e.instance,
       e.name,
       d.consumer,
       coalesce(d.state, case when e.rejected is null then 'done' else 'dead' end) as state,
       d.due_at
from jobnimbus_mcp.events e
left join jobnimbus_mcp.deliveries d on d.event_id = e.event_id
left join lateral (
    select t.status_code, t.error, t.response
    from jobnimbus_mcp.attempts t
    where t.event_id = d.event_id and t.consumer = d.consumer
    order by t.id desc
    limit 1
) a on true
order by e.event_id desc, d.consumer;
