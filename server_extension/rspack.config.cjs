// Ids that do not depend on where the checkout is: two builds can be compared byte for byte.
module.exports = { optimization: { moduleIds: 'named', chunkIds: 'named' } };
