-- Ids of every type, the way clients send them.
SELECT rec_create(u || '_' || i, user_type => u::regtype, item_type => i::regtype)
FROM unnest('{integer,bigint,uuid,text}'::text[]) u, unnest('{integer,bigint,uuid,text}'::text[]) i;

-- The same shop in every mixture: user n and item n are n as a number, a uuid or a word.
CREATE FUNCTION id(n integer, kind text) RETURNS text IMMUTABLE LANGUAGE sql AS $$
SELECT CASE kind WHEN 'uuid' THEN '00000000-0000-4000-8000-' || lpad(n::text, 12, '0') WHEN 'text' THEN 'n' || n ELSE n::text END $$;
DO $fill$
DECLARE
    r record;
BEGIN
    FOR r IN SELECT name, user_type AS u, item_type AS i FROM rec.recommender WHERE name <> 'shop' ORDER BY name LOOP
        EXECUTE format('INSERT INTO %I.item (item_id) SELECT id(n, %L)::%s FROM generate_series(1, 4) n', r.name, r.i, r.i);
        EXECUTE format(
            'INSERT INTO %I.interaction (user_id, item_id) SELECT id(u, %L)::%s, id(i, %L)::%s FROM generate_series(1, 3) u, '
            'generate_series(1, u) i', r.name, r.u, r.u, r.i, r.i);
    END LOOP;
END $fill$;
SELECT format('CALL rec_train(''popularity'', ''{"half_life": null}'', %L, deploy => true)', name)
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec

-- Typed arguments.
SELECT format('SELECT %L AS recommender, n.* FROM %I.rec_next(%L::%s, 2) n', name, name, id(1, user_type), user_type)
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec
-- Untyped literals.
SELECT format('SELECT %L AS recommender, item_id FROM %I.rec_next(%L, 1)', name, name, id(1, user_type))
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec
-- Prepared statements whose parameter has no type.
SELECT format('PREPARE p AS SELECT item_id, pg_typeof($1) AS parameter FROM %I.rec_next($1, 1)', name),
       format('EXECUTE p(%L)', id(1, user_type)),
       'DEALLOCATE p'
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec
-- Arrays.
SELECT format('SELECT m.user_id, m.item_id FROM %I.rec_next_many(%L, 1) m', name, ARRAY[id(1, user_type), id(2, user_type)])
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec
SELECT format('SELECT %L AS recommender, count(*) FROM %I.rec_next(%L, candidates => %L, exclude => %L, session => %L)', name, name, id(1, user_type),
    ARRAY[id(1, item_type), id(2, item_type), id(3, item_type), id(4, item_type)], ARRAY[id(3, item_type)], ARRAY[id(4, item_type)])
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec
SELECT format('SELECT * FROM %I.rec_score(%L, %L)', name, id(9, user_type), ARRAY[id(1, item_type), id(9, item_type)])
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec
SELECT format('SELECT rank, item_id FROM %I.rec_next_session(%L, 1)', name, ARRAY[id(1, item_type)])
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec
SELECT format('SELECT %I.rec_explain(%L, %L) ->> ''item'' AS item', name, id(1, user_type), id(2, item_type))
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec
-- Columns of the tables as arguments, and the result joined with the items.
SELECT format('SELECT count(*) FROM (SELECT DISTINCT user_id FROM %I.interaction) u, LATERAL %I.rec_next(u.user_id, 4) n JOIN %I.item i USING (item_id)', name, name, name)
FROM rec.recommender WHERE name <> 'shop' ORDER BY name \gexec

-- With the schema first in the path the same call works everywhere.
SET search_path = uuid_text, public;
SELECT * FROM rec_next('00000000-0000-4000-8000-000000000001', 1);
SET search_path = integer_bigint, public;
SELECT * FROM rec_next(1, 1);
SELECT * FROM rec_next('1', 1);
SELECT * FROM rec_next(1::smallint, 1);
PREPARE untyped AS SELECT * FROM rec_next($1, $2);
EXECUTE untyped(1, 1);
EXECUTE untyped('1', '1');
PREPARE typed(bigint, integer) AS SELECT * FROM rec_next($1, $2);
EXECUTE typed(1, 1);
DEALLOCATE ALL;
SET search_path = text_text, public;
SELECT * FROM rec_next('n1', 1);
SELECT * FROM rec_next('', 1);
SELECT * FROM rec_next('it''s "odd" \ ☃', 1);
-- A number is not a text.
SELECT * FROM rec_next(1, 1);

-- Forms of one uuid.
SET search_path = uuid_uuid, public;
SELECT item_id FROM rec_next('{00000000-0000-4000-8000-000000000001}', 1);
SELECT item_id FROM rec_next('00000000000040008000000000000001', 1, candidates => '{00000000-0000-4000-8000-00000000000A,00000000-0000-4000-8000-000000000004}');
SELECT item_id FROM rec_next('not a uuid', 1);
SELECT item_id FROM rec_next('00000000-0000-4000-8000-000000000001', exclude => '{zero}');

-- The public functions say which one to call.
RESET search_path;
SELECT * FROM rec_next(1, recommender => 'uuid_text');
SELECT * FROM rec_next_many('{1}', recommender => 'integer_uuid');
SELECT * FROM rec_next(1, 1, recommender => 'integer_integer');

-- An integer column takes part as it is; a larger number is simply nobody.
SELECT count(*) FROM integer_integer.rec_next(9223372036854775807);
SELECT count(*) FROM integer_integer.rec_next(1, exclude => '{9223372036854775807}');

SELECT rec_drop(name, tables => true) FROM rec.recommender WHERE name LIKE 'uuid%';
SELECT count(*) AS left FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname LIKE 'uuid%';
