\set models '(VALUES (''popular''), (''tgh''), (''encoder'')) m(name)'
SELECT 'next', m.name, u, n.* FROM :models, generate_series(1, 25) u, rec_next(u, 10, model => m.name, recommender => 'shop') n
ORDER BY 2, 3, 4;
SELECT 'deployed', u, n.* FROM generate_series(1, 5) u, rec_next(u, recommender => 'shop') n ORDER BY 2, 3;
SELECT 'many', m.name, n.* FROM :models,
    rec_next_many(ARRAY(SELECT generate_series(300, 1, -1)), 5, model => m.name, recommender => 'shop') n ORDER BY 2, 3, 4;
SELECT 'session', m.name, s, n.* FROM :models, generate_series(1, 10) s,
    rec_next_session(ARRAY[s, s * 7, s * 13], 5, model => m.name, recommender => 'shop') n ORDER BY 2, 3, 4;
SELECT 'similar', m.name, i, n.* FROM :models, generate_series(1, 20) i,
    rec_similar(i, 5, model => m.name, recommender => 'shop') n WHERE m.name <> 'popular' ORDER BY 2, 3, 4;
SELECT 'score', m.name, u, n.* FROM :models, generate_series(1, 5) u,
    rec_score(u, ARRAY[1, 50, 100, 150, 9999], model => m.name, recommender => 'shop') n ORDER BY 2, 3, 4;
SELECT 'explain', m.name, rec_explain(3, 17, model => m.name, recommender => 'shop') FROM :models;
SELECT 'encode', u, rec_encode(u, model => 'encoder', recommender => 'shop') FROM generate_series(1, 3) u;
SELECT 'evaluate', e.* FROM :models, rec_evaluate(m.name, k => '{5,10}', recommender => 'shop') e ORDER BY 2, 5, 6;
SELECT 'typed', n.* FROM shop.rec_next(4, 5) n;
SELECT 'model', name, family, state, reason, deployed, items, bytes, checksum, cut, params, metrics, created_at, finished_at
FROM rec.models WHERE name IN ('popular', 'tgh', 'encoder') ORDER BY name;
