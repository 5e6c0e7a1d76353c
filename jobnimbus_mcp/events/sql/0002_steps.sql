-- The steps, each one statement of the caller's and so one transaction.
--
-- Small ones are plpgsql, which keeps its plans; sql would plan anew at every call.
-- Times are the caller's, except what a queue compares with the server's own clock: that is told as seconds from now,
-- so that a machine whose clock is wrong does not make events early or late.
-- Rows are locked in one order everywhere: the record, messages of a queue, events by id.

-- A queue's name has 47 characters at most and no capitals: a readable part, and one that keeps names apart.
create function jobnimbus_mcp.queue_of(p_consumer text) returns text
language sql immutable strict as $$
    select 'jn_' || left(trim(both '_' from regexp_replace(lower(p_consumer), '[^a-z0-9]+', '_', 'g')), 30)
        || '_' || left(md5(p_consumer), 8)
$$;

create function jobnimbus_mcp.open_consumer(p_consumer text) returns text
language plpgsql as $$
declare
    found_queue text;
begin
    select c.queue into found_queue from jobnimbus_mcp.consumers c where c.name = p_consumer and c.retired_at is null;
    if found_queue is not null then
        return found_queue;
    end if;
    found_queue := jobnimbus_mcp.queue_of(p_consumer);
    perform pgmq.create(found_queue);
    insert into jobnimbus_mcp.consumers (name, queue) values (p_consumer, found_queue)
        on conflict (name) do update set retired_at = null;
    return found_queue;
end
$$;

create function jobnimbus_mcp.tell(p_message text) returns void
language plpgsql as $$ begin perform pg_notify('jobnimbus_mcp', p_message); end $$;

create function jobnimbus_mcp.send(
    p_queue text, p_event_id text, p_instance text, p_name text, p_record text, p_delay_s double precision
) returns void
language plpgsql as $$
begin
    perform pgmq.send(
        p_queue,
        jsonb_build_object('event_id', p_event_id, 'name', p_name),
        jsonb_build_object('x-pgmq-group', p_instance || '/' || p_record, 'account', p_instance),
        clock_timestamp() + make_interval(secs => greatest(p_delay_s, 0))
    );
end
$$;

-- Numbers are given out before a transaction ends. Without the lock a later event of the same record could be seen,
-- and handed out, before an earlier one.
create function jobnimbus_mcp.one_at_a_time(p_instance text, p_record text) returns void
language plpgsql as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(p_instance || '/' || p_record, 7464));
end
$$;

create function jobnimbus_mcp.append(
    p_event_id text, p_instance text, p_name text, p_entity text, p_record_id text, p_source text,
    p_received_at double precision, p_envelope text, p_body text,
    p_consumers text[], p_due double precision[], p_now double precision
) returns boolean
language plpgsql as $$
declare
    record_key text := p_entity || ':' || p_record_id;
    one record;
begin
    perform jobnimbus_mcp.one_at_a_time(p_instance, record_key);
    insert into jobnimbus_mcp.events
        (event_id, instance, name, entity, record_id, source, received_at, envelope, body, unfinished, finished_at)
    values (
        p_event_id, p_instance, p_name, p_entity, p_record_id, p_source, to_timestamp(p_received_at),
        p_envelope::json, p_body, cardinality(p_consumers),
        case when cardinality(p_consumers) = 0 then to_timestamp(p_now) end
    ) on conflict (event_id) do nothing;
    if not found then
        return false;
    end if;
    if cardinality(p_consumers) = 0 then
        return true;
    end if;
    insert into jobnimbus_mcp.deliveries (event_id, consumer, instance, due_at)
        select p_event_id, r.consumer, p_instance, to_timestamp(r.due)
        from unnest(p_consumers, p_due) as r(consumer, due);
    for one in
        select r.consumer, r.due, c.queue from unnest(p_consumers, p_due) as r(consumer, due)
        left join jobnimbus_mcp.consumers c on c.name = r.consumer and c.retired_at is null
        order by r.consumer
    loop
        perform jobnimbus_mcp.send(
            coalesce(one.queue, jobnimbus_mcp.open_consumer(one.consumer)),
            p_event_id, p_instance, p_name, record_key, one.due - p_now
        );
    end loop;
    perform jobnimbus_mcp.tell('events');
    return true;
end
$$;

create function jobnimbus_mcp.take(p_consumer text, p_most integer, p_hidden_s double precision)
returns table (
    msg_id bigint, read_ct integer, event_id text, envelope text, body text, attempts integer, due_at double precision
)
language plpgsql as $$
#variable_conflict use_column
declare
    from_queue text := (select c.queue from jobnimbus_mcp.consumers c where c.name = p_consumer);
    got pgmq.message_record[];
begin
    if from_queue is null then
        from_queue := jobnimbus_mcp.open_consumer(p_consumer);
    end if;
    select array_agg(m) into got from pgmq.read_grouped_head(from_queue, ceil(p_hidden_s)::integer, p_most) m;
    if got is null then
        return;
    end if;
    if p_hidden_s <> ceil(p_hidden_s) then
        perform pgmq.set_vt(
            from_queue, array(select m.msg_id from unnest(got) m), clock_timestamp() + make_interval(secs => p_hidden_s)
        );
    end if;
    return query
        select m.msg_id, m.read_ct, m.message ->> 'event_id', e.envelope::text, e.body, d.attempts,
               extract(epoch from d.due_at)::double precision
        from unnest(got) m
        left join jobnimbus_mcp.events e on e.event_id = m.message ->> 'event_id'
        left join jobnimbus_mcp.deliveries d on d.event_id = e.event_id and d.consumer = p_consumer
        order by d.due_at, m.msg_id;
end
$$;

-- Seconds until some message can be seen that cannot be seen now: delayed, to be tried again, or in some hands.
create function jobnimbus_mcp.next_due_s(p_consumer text) returns double precision
language plpgsql as $$
declare
    seconds double precision;
begin
    execute format(
        'select extract(epoch from min(vt) - clock_timestamp()) from pgmq.%I where vt > clock_timestamp()',
        'q_' || jobnimbus_mcp.queue_of(p_consumer)
    ) into seconds;
    return seconds;
end
$$;

-- Messages that are still as they were handed out, locked. Nobody else has taken them since: read_ct counts takes.
create function jobnimbus_mcp.still_ours(p_consumer text, p_msg bigint[], p_read integer[]) returns bigint[]
language plpgsql as $$
declare
    ours bigint[];
begin
    execute format(
        'select coalesce(array_agg(x.msg_id), ''{}'') from (
             select q.msg_id from pgmq.%I q join unnest($1, $2) as r(msg, reads) on q.msg_id = r.msg and q.read_ct = r.reads
             order by q.msg_id for update of q
         ) x',
        'q_' || jobnimbus_mcp.queue_of(p_consumer)
    ) into ours using p_msg, p_read;
    return ours;
end
$$;

create function jobnimbus_mcp.settle(
    p_consumer text, p_msg bigint[], p_read integer[], p_event text[], p_fate text[], p_due double precision[],
    p_reason text[], p_at double precision[], p_request text[], p_ms double precision[], p_status integer[],
    p_error text[], p_response text[], p_now double precision
) returns integer
language plpgsql as $$
declare
    ours bigint[] := jobnimbus_mcp.still_ours(p_consumer, p_msg, p_read);
    from_queue text := jobnimbus_mcp.queue_of(p_consumer);
begin
    if ours = '{}' then
        return 0;
    end if;
    -- two consumers that finish the same events at the same time must both see who was the last
    perform 1 from jobnimbus_mcp.events e
        where e.event_id = any (select r.event from unnest(p_msg, p_event) as r(msg, event) where r.msg = any (ours))
        order by e.event_id for no key update;
    insert into jobnimbus_mcp.attempts
        (event_id, consumer, instance, due_at, at, request_id, duration_ms, status_code, error, response)
    select d.event_id, d.consumer, d.instance, d.due_at, to_timestamp(r.at), r.request, r.ms, r.status, r.error,
           r.response
    from unnest(p_msg, p_event, p_at, p_request, p_ms, p_status, p_error, p_response)
        as r(msg, event, at, request, ms, status, error, response)
    join jobnimbus_mcp.deliveries d on d.event_id = r.event and d.consumer = p_consumer
    where r.msg = any (ours)
    order by r.msg;
    update jobnimbus_mcp.deliveries d
    set tries = d.tries + 1,
        attempts = d.attempts + 1,
        state = case r.fate when 'retry' then 'pending' else r.fate end,
        due_at = case r.fate when 'retry' then to_timestamp(r.due) else d.due_at end,
        done_at = case r.fate when 'done' then to_timestamp(p_now) end,
        reason = case r.fate when 'dead' then r.reason else '' end
    from unnest(p_msg, p_event, p_fate, p_due, p_reason) as r(msg, event, fate, due, reason)
    where r.msg = any (ours) and d.event_id = r.event and d.consumer = p_consumer;
    update jobnimbus_mcp.events e
    set unfinished = e.unfinished - 1,
        dead = e.dead + case r.fate when 'dead' then 1 else 0 end,
        finished_at = case when e.unfinished = 1 then to_timestamp(p_now) end
    from unnest(p_msg, p_event, p_fate) as r(msg, event, fate)
    where r.msg = any (ours) and r.fate <> 'retry' and e.event_id = r.event;
    perform pgmq.archive(
        from_queue,
        array(select r.msg from unnest(p_msg, p_fate) as r(msg, fate) where r.msg = any (ours) and r.fate <> 'retry')
    );
    perform pgmq.set_vt(from_queue, r.msg, clock_timestamp() + make_interval(secs => greatest(r.due - p_now, 0)))
        from unnest(p_msg, p_fate, p_due) as r(msg, fate, due)
        where r.msg = any (ours) and r.fate = 'retry';
    perform jobnimbus_mcp.tell('events');
    return cardinality(ours);
end
$$;

create function jobnimbus_mcp.give_back(p_consumer text, p_msg bigint[], p_read integer[]) returns integer
language plpgsql as $$
declare
    ours bigint[] := jobnimbus_mcp.still_ours(p_consumer, p_msg, p_read);
begin
    perform pgmq.set_vt(jobnimbus_mcp.queue_of(p_consumer), ours, clock_timestamp());
    perform jobnimbus_mcp.tell('events');
    return cardinality(ours);
end
$$;

-- A message whose event is no longer kept.
create function jobnimbus_mcp.drop_orphans(p_consumer text, p_msg bigint[]) returns void
language sql as $$
    select pgmq.archive(jobnimbus_mcp.queue_of(p_consumer), p_msg);
    select jobnimbus_mcp.tell('events')
$$;

create function jobnimbus_mcp.reject(
    p_event_id text, p_instance text, p_name text, p_entity text, p_record_id text, p_source text,
    p_received_at double precision, p_envelope text, p_body text, p_reason text, p_now double precision
) returns void
language sql as $$
    insert into jobnimbus_mcp.events
        (event_id, instance, name, entity, record_id, source, received_at, envelope, body, unfinished, dead,
         finished_at, rejected)
    values (p_event_id, p_instance, p_name, p_entity, p_record_id, p_source, to_timestamp(p_received_at),
            p_envelope::json, p_body, 0, 1, to_timestamp(p_now), p_reason)
    on conflict (event_id) do nothing
$$;

create function jobnimbus_mcp.replay(p_instance text, p_event_id text, p_consumer text, p_now double precision)
returns setof text
language plpgsql as $$
declare
    event record;
    one text;
begin
    select e.entity || ':' || e.record_id as record_key, e.name into event
        from jobnimbus_mcp.events e where e.event_id = p_event_id and e.instance = p_instance;
    if not found then
        return;
    end if;
    perform jobnimbus_mcp.one_at_a_time(p_instance, event.record_key);
    perform 1 from jobnimbus_mcp.events e where e.event_id = p_event_id for no key update;
    for one in
        update jobnimbus_mcp.deliveries d
        set state = 'pending', attempts = 0, due_at = to_timestamp(p_now), reason = ''
        where d.event_id = p_event_id and d.state = 'dead' and (p_consumer is null or d.consumer = p_consumer)
        returning d.consumer
    loop
        update jobnimbus_mcp.events e set unfinished = e.unfinished + 1, dead = e.dead - 1, finished_at = null
            where e.event_id = p_event_id;
        perform jobnimbus_mcp.send(
            jobnimbus_mcp.open_consumer(one), p_event_id, p_instance, event.name, event.record_key, 0
        );
        return next one;
    end loop;
    perform jobnimbus_mcp.tell('events');
end
$$;

create function jobnimbus_mcp.retire(p_kept text[], p_now double precision) returns integer
language plpgsql as $$
declare
    gone text;
    ended text[];
    total integer := 0;
begin
    for gone in
        select c.name from jobnimbus_mcp.consumers c
        where c.name <> all (p_kept) and (
            c.retired_at is null
            or exists (select 1 from jobnimbus_mcp.deliveries d where d.state = 'pending' and d.consumer = c.name)
        )
        order by 1
    loop
        execute format(
            'with gone as (
                 delete from pgmq.%I returning msg_id, vt, read_ct, enqueued_at, last_read_at, message, headers
             ), kept as (
                 insert into pgmq.%I (msg_id, vt, read_ct, enqueued_at, last_read_at, message, headers)
                 select msg_id, vt, read_ct, enqueued_at, last_read_at, message, headers from gone
             )
             select coalesce(array_agg(message ->> ''event_id''), ''{}'') from gone',
            'q_' || jobnimbus_mcp.queue_of(gone), 'a_' || jobnimbus_mcp.queue_of(gone)
        ) into ended;
        perform 1 from jobnimbus_mcp.events e where e.event_id = any (ended) order by e.event_id for no key update;
        update jobnimbus_mcp.deliveries d set state = 'dead', reason = 'no_such_consumer'
            where d.consumer = gone and d.event_id = any (ended) and d.state = 'pending';
        update jobnimbus_mcp.events e
            set unfinished = e.unfinished - 1, dead = e.dead + 1,
                finished_at = case when e.unfinished = 1 then to_timestamp(p_now) end
            where e.event_id = any (ended);
        update jobnimbus_mcp.consumers c set retired_at = to_timestamp(p_now) where c.name = gone;
        total := total + cardinality(ended);
    end loop;
    return total;
end
$$;

create function jobnimbus_mcp.clean(p_archived_before double precision, p_dead_before double precision, p_most integer)
returns integer
language plpgsql as $$
declare
    forgotten integer;
begin
    -- what is asked stands in the deletion itself, so that an event that is replayed meanwhile is kept
    delete from jobnimbus_mcp.events e
    where e.event_id = any (array(
              select f.event_id from jobnimbus_mcp.events f
              where f.finished_at < to_timestamp(greatest(p_archived_before, p_dead_before))
                and f.finished_at < to_timestamp(case when f.dead = 0 then p_archived_before else p_dead_before end)
              order by f.finished_at limit p_most
          ))
      and e.unfinished = 0;
    get diagnostics forgotten = row_count;
    return forgotten;
end
$$;

-- The archives of the queues; they say only which event it was.
create function jobnimbus_mcp.clean_archives(p_before double precision, p_most integer) returns integer
language plpgsql as $$
declare
    one text;
    most_forgotten integer := 0;
    forgotten integer;
begin
    for one in select c.queue from jobnimbus_mcp.consumers c order by 1 loop
        execute format(
            'delete from pgmq.%1$I where msg_id = any (array(
                 select msg_id from pgmq.%1$I where archived_at < to_timestamp($1) order by archived_at limit $2))',
            'a_' || one
        ) using p_before, p_most;
        get diagnostics forgotten = row_count;
        most_forgotten := greatest(most_forgotten, forgotten);
    end loop;
    return most_forgotten;
end
$$;

-- The server's timeline is part of it: after a failover or a recovery, which may have lost the latest, it is another.
create function jobnimbus_mcp.standing_token() returns text
language sql as $$
    select m.token || '.' || left(pg_walfile_name(pg_current_wal_lsn()), 8) from jobnimbus_mcp.meta m
$$;

-- For whoever puts back a dump, which the server cannot tell from what was there before.
create function jobnimbus_mcp.renew_token() returns void
language sql as $$ update jobnimbus_mcp.meta set token = gen_random_uuid() $$;
