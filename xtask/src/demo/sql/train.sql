CALL rec_train(:'family', :'params', recommender => 'shop', deploy => true);
