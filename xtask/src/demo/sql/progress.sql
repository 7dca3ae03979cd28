-- How the training that runs is getting on, in one line.
SELECT concat_ws(', ',
    CASE WHEN epoch IS NULL THEN phase ELSE 'epoch ' || epoch || ' of at most ' || epochs END,
    'loss ' || round(loss::numeric, 3),
    metric || ' ' || round(validation::numeric, 4) || ' (best ' || round(best::numeric, 4) || ')',
    round(events_per_second)::bigint || ' events/s')
FROM rec.progress;
