CALL rec_train(:'family', recommender => 'shop', deploy => true);
