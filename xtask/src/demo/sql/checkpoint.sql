-- The encoders in shared/data were trained without the last two items of every user.
SELECT rec_import_file('imported', :'path', :'items'::bigint[], leave_last => 2, recommender => 'shop');
SELECT rec_deploy('imported', recommender => 'shop');
