-- A user's latest items beside what each model says comes next: one model, or two of them.
WITH past AS (
    SELECT row_number() OVER (ORDER BY at DESC NULLS LAST, position DESC NULLS LAST) AS rank, item_id
    FROM shop.interaction
    WHERE user_id = :user_id
)
SELECT rank AS "#",
       left(coalesce(took.title, 'item ' || p.item_id), 40) AS "took, latest first",
       left(coalesce(a.title, 'item ' || first.item_id), 40) AS :"first_heading",
       round(first.score::numeric, 3) AS score
\if :{?second}
     , left(coalesce(b.title, 'item ' || second.item_id), 40) AS :"second_heading",
       round(second.score::numeric, 3) AS score
\endif
FROM (SELECT * FROM past WHERE rank <= 8) p
FULL JOIN shop.rec_next(:user_id, 8, model => :'first') first USING (rank)
LEFT JOIN shop.item took ON took.item_id = p.item_id
LEFT JOIN shop.item a ON a.item_id = first.item_id
\if :{?second}
FULL JOIN shop.rec_next(:user_id, 8, model => :'second') second USING (rank)
LEFT JOIN shop.item b ON b.item_id = second.item_id
\endif
ORDER BY rank;
